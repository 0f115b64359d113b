"""From a file to the network's input: decoding in a child process, DICOM's grey values, preprocessing."""
