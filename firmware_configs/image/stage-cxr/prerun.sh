#!/bin/bash -e
# The stage begins with what the one before has made.
if [ ! -d "${ROOTFS_DIR}" ]; then
    copy_previous
fi
