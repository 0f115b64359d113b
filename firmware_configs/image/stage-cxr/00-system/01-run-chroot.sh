#!/bin/bash -e
# In the card's system. What would make two cards alike is removed: each makes its own machine id and host keys at its first boot.
userdel --remove --force building || true
passwd --lock root
systemctl enable cxr-data-partition cxr-open-root cxr-first-boot cxr-address cxr-wifi cxr-firewall-additions cxr-maintenance.timer nftables systemd-timesyncd ssh
# Not on this card: what makes a swap file, keys or room for the root; updates at their own time (cxr-maintenance has its own).
systemctl disable dphys-swapfile apt-daily.timer apt-daily-upgrade.timer regenerate_ssh_host_keys sshswitch resize2fs_once 2>/dev/null || true
# What writes to a root that is read-only from the first boot on fails there, at each start or every night.
systemctl disable unattended-upgrades fake-hwclock logrotate.timer man-db.timer dpkg-db-backup.timer 2>/dev/null || true
# What speaks to the neighbourhood though nothing here asks it, and what would write a new boot loader while a clinic works.
systemctl disable avahi-daemon.service avahi-daemon.socket bluetooth hciuart ModemManager triggerhappy rpi-eeprom-update 2>/dev/null || true
systemctl mask userconfig.service || true
# NetworkManager's: its key, and that pi-gen has switched Wi-Fi off where no country was named.
rm --force /var/lib/NetworkManager/secret_key /var/lib/NetworkManager/NetworkManager.state
rm --force /etc/ssh/ssh_host_*_key* /var/lib/systemd/random-seed /var/swap
: >/etc/machine-id
