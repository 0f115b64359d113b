#!/bin/bash -e
# The software, from its offline package: CXR_PACKAGE is cxr-edge-VERSION-aarch64-py311.tar.
install --directory "${ROOTFS_DIR}/tmp/cxr-edge"
tar --extract --file="${CXR_PACKAGE:?the offline package}" --directory="${ROOTFS_DIR}/tmp/cxr-edge" --strip-components=1
