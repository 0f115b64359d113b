#!/bin/bash -e
# The files of firmware_configs/first-boot, each to the place that its first lines name.
source="${CXR_EDGE:?the checkout of cxr-edge}/firmware_configs"
put() { install -D --mode="$1" "${source}/first-boot/$2" "${ROOTFS_DIR}$3"; }

for program in cxr-first-boot cxr-address cxr-wifi cxr-data-partition cxr-firewall-additions cxr-maintenance; do
    put 755 "${program}" "/usr/local/sbin/${program}"
done
for unit in cxr-first-boot.service cxr-address.service cxr-wifi.service cxr-data-partition.service cxr-open-root.service \
    cxr-firewall-additions.service cxr-maintenance.service cxr-maintenance.timer media-cxr.mount; do
    put 644 "${unit}" "/etc/systemd/system/${unit}"
done
put 644 80-cxr-stick.rules /etc/udev/rules.d/80-cxr-stick.rules
put 644 nftables.conf /etc/nftables.conf
put 644 watchdog.conf /etc/systemd/system.conf.d/cxr-edge.conf
put 644 timesyncd.conf /etc/systemd/timesyncd.conf.d/cxr-edge.conf
put 644 zram-generator.conf /etc/systemd/zram-generator.conf
put 644 sysctl.conf /etc/sysctl.d/80-cxr-edge.conf
put 644 sshd.conf /etc/ssh/sshd_config.d/cxr-edge.conf
put 644 apt-upgrades.conf /etc/apt/apt.conf.d/52cxr-edge
put 644 cloud.cfg /etc/cloud/cloud.cfg.d/99-cxr-edge.cfg
put 644 cloud-init-local.conf /etc/systemd/system/cloud-init-local.service.d/cxr-edge.conf
put 644 user-data /boot/firmware/user-data
put 644 meta-data /boot/firmware/meta-data

# Root and boot partition are read-only; cxr-open-root and cxr-first-boot open them when they need to. pi-gen puts the devices in.
# Without its boot partition, once it has started, a device goes on serving: what needs that partition requires its mount.
{
    echo "proc     /proc           proc  defaults                                 0  0"
    echo "BOOTDEV  /boot/firmware  vfat  ro,nodev,nosuid,noexec,umask=0077,nofail  0  2"
    echo "ROOTDEV  /               ext4  ro,noatime                               0  1"
    cat "${source}/first-boot/fstab"
} >"${ROOTFS_DIR}/etc/fstab"
install --directory "${ROOTFS_DIR}"/{data,media/cxr,opt/cxr-edge,etc/cxr-edge,var/lib/cxr-edge,srv/cxr/inbox,var/log/journal,var/lib/NetworkManager}

# The root keeps its size (the rest is the data partition), memory can be limited, and the watchdog is there.
sed --in-place --expression='s# init=[^ ]*firstboot##; s# resize##' \
    --expression='s#$# cgroup_enable=memory fsck.repair=yes panic=10#' "${ROOTFS_DIR}/boot/firmware/cmdline.txt"
printf '\n[all]\n# The clinic device: a watchdog, no memory for a screen.\ndtparam=watchdog=on\ngpu_mem=16\n' \
    >>"${ROOTFS_DIR}/boot/firmware/config.txt"
ln --symbolic --force /run/NetworkManager/resolv.conf "${ROOTFS_DIR}/etc/resolv.conf"
