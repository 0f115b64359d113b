"""Reason codes of outcomes, most of them without an answer, and the sentence that tells a person what to do."""

REASONS: dict[str, str] = {
    "not_found": "There is no such file, or it may not be read.",
    "not_readable": "This device's service may not read the file. Give it the right to read what is put into the watched folder.",
    "empty_file": "The file is empty. Export the picture again.",
    "folder": "This is a folder. Name the files in it.",
    "not_an_image": "This is no picture in a known format. Send DICOM, PNG, JPEG or TIFF.",
    "truncated": "The picture is cut short. Copy it again and wait until the copy has finished.",
    "too_large": "The picture has more bytes or pixels than this device accepts. Export it smaller.",
    "too_small": "The picture is too small to read. Export it at full size.",
    "unsupported_encoding": "The picture uses an encoding that this device cannot read. Export it as PNG or uncompressed DICOM.",
    "damaged": "The picture is damaged. Export it again.",
    "no_pixels": "The DICOM file holds no picture. Send the image object, not its report or index.",
    "multi_frame": "The file holds several pictures. Send each film as a file of its own.",
    "not_a_radiograph": "The DICOM file is no plain radiograph (CR, DX or Secondary Capture). Send the chest film.",
    "colour": "This is a colour picture, not a radiograph. Send the X-ray itself, not a photograph of it.",
    "odd_shape": "The picture is far longer than it is wide. Send the whole chest film.",
    "blank": "The picture shows nothing. Check the exposure and send it again.",
    "decoder_timeout": "Reading the picture took too long and was stopped. Export it again in another format.",
    "decoder_memory": "Reading the picture needed more memory than this device allows. Export it smaller.",
    "decoder_crashed": "The decoder stopped on this picture; only this picture is affected. Export it in another format.",
    "unfamiliar": "This kind of image is new to the network, which has learned from others.",
    "undecided": "More than one answer is possible.",
    "uid_reused": "Another picture has come with the same DICOM number. Check which patient each belongs to.",
    "wrong_patient": "The picture was of another patient.",
    "internal_error": "The device could not process this picture. It is kept aside; tell the people who run the device.",
}


def advice(reason: str) -> str:
    """Return the sentence for `reason`; an unknown code (from a newer device) is returned as it is."""
    return REASONS.get(reason, reason)
