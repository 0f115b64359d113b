"""cxr-edge on the device: from an X-ray file to a receipted result at the centre."""

__version__ = "0.1.0"
