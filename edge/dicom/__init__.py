"""DICOM intake: what X-ray machines send over the network enters the spool. Only `cxr-edge dicom` loads pynetdicom."""
