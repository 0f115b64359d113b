"""What is said of an outcome in English: with every answer, without one, and for each reason code what a person can do."""

AID = "A research aid; never the only basis of a decision."
"""Stands wherever an answer is shown."""

NOT_SURE = "not sure: have a radiologist look"

REUSED = "uid_reused"
CORRECTED = "corrected"

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
    "not_a_chest": "This does not look like a frontal chest radiograph. Check that the right picture was sent.",
    "lateral": "This is a view from the side. Send the frontal view (PA or AP).",
    "on_its_side": "The picture lies on its side. Turn it and send it again.",
    "upside_down": "The picture stands on its head. Turn it and send it again.",
    "inverted": "Black and white are exchanged. Show bone white and send it again.",
    "cut_off": "A part of the chest is missing. Send the whole film, or take it again.",
    "blurred": "The picture is blurred. Check the export and whether the patient moved; send a sharp one.",
    "too_dark": "The picture is too dark to read. Check exposure and window, and send it again.",
    "burnt_out": "The chest is burnt out to white. Lower the exposure or change the window, and send it again.",
    "text_over_lungs": "There is writing over the lungs. Switch the annotations off and export it again.",
    "too_young": "The patient is younger than those from whom the network has learned. Have a radiologist look.",
    "decoder_timeout": "Reading the picture took too long and was stopped. Export it again in another format.",
    "decoder_memory": "Reading the picture needed more memory than this device allows. Export it smaller.",
    "decoder_crashed": "The decoder stopped on this picture; only this picture is affected. Export it in another format.",
    "unfamiliar": "This kind of image is new to the network, which has learned from others.",
    "undecided": "More than one answer is possible.",
    "corrected": "The film was sent again with other details of the patient. What was answered before is taken back.",
    "uid_reused": "Another picture has come with the same DICOM number. Check which patient each belongs to.",
    "wrong_patient": "The picture was of another patient.",
    "internal_error": "The device could not process this picture. It is kept aside; tell the people who run the device.",
}


def advice(reason: str) -> str:
    """Return the sentence for `reason`; an unknown code (from a newer device) is returned as it is."""
    return REASONS.get(reason, reason)
