#!/bin/bash -e
# As on any board, but without an enrolment: that comes with the first boot, and so does what depends on it. A unit whose table
# device.toml does not have starts nothing.
sh /tmp/cxr-edge/install.sh --image
systemctl enable cxr-watch cxr-infer cxr-relay cxr-page cxr-dicom cxr-pacs
rm --recursive --force /tmp/cxr-edge
