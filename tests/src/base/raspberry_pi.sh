# SPDX-License-Identifier: Apache-2.0
# A disk image in the form of Raspberry Pi OS: MBR, a FAT `bootfs` with firmware, kernel and cmdline.txt, an ext4 `rootfs`, and
# what such an image does by itself at its first boots. Kernel and programs are Debian's.
# After begin.sh.
signature=5a7c0de1
echo raspberrypi >root/etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n' >root/etc/hosts
cat >root/etc/fstab <<X
proc            /proc           proc    defaults          0       0
PARTUUID=$signature-01  /boot/firmware  vfat    defaults          0       2
PARTUUID=$signature-02  /               ext4    defaults,noatime  0       1
X
# The emulated board's network interface has the USB numbers of management controllers, which get link-local addresses alone
# (systemd, hwdb.d/82-net-auto-link-local.hwdb). That of a board has others.
install -D -m 644 /dev/stdin root/etc/udev/rules.d/99-emulator.rules <<'X'
SUBSYSTEM=="net", ENV{ID_NET_AUTO_LINK_LOCAL_ONLY}="0"
X
# What raspberrypi-sys-mods does as the first process of the first boot: a longer partition, host keys, and a restart.
install -D -m 755 /dev/stdin root/usr/lib/raspberrypi-sys-mods/firstboot <<'X'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /run
mount -o remount,rw /
mount /boot/firmware
sed -i 's| init=/usr/lib/raspberrypi-sys-mods/firstboot||' /boot/firmware/cmdline.txt
disk=/dev/$(basename "$(dirname "$(readlink -f /sys/class/block/$(basename "$(findmnt -no SOURCE /)"))")")
echo ', +' | sfdisk --no-reread --no-tell-kernel --quiet -N 2 "$disk"
ssh-keygen -A
umount /boot/firmware
mount -o remount,ro /
sync
echo 'base: the partition is longer; restarting' >/dev/console
echo 1 >/proc/sys/kernel/sysrq
echo b >/proc/sysrq-trigger
sleep 60
X
# What lengthens the file system in the first boot with systemd.
cat >root/usr/lib/systemd/system/rpi-resize.service <<'X'
[Unit]
Description=Resize the root file system to its partition
ConditionFirstBoot=no
ConditionPathExists=!/var/lib/rpi-resize-done
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'resize2fs "$(findmnt -no SOURCE /)" && touch /var/lib/rpi-resize-done'
[Install]
WantedBy=multi-user.target
X
ln -s /usr/lib/systemd/system/rpi-resize.service root/etc/systemd/system/multi-user.target.wants/
# What Raspberry Pi Imager leaves: a host name, and the removal of itself.
cat >firstrun.sh <<'X'
#!/bin/bash
set +e
echo imager-host >/etc/hostname
sed -i 's/127.0.1.1.*raspberrypi/127.0.1.1\timager-host/' /etc/hosts
rm -f /boot/firmware/firstrun.sh
sed -i 's| systemd.run.*||g' /boot/firmware/cmdline.txt
echo 'base: firstrun.sh is done' >/dev/console
exit 0
X
cat >config.txt <<'X'
# For more options and information see http://rptl.io/configtxt
dtparam=audio=on
camera_auto_detect=1
auto_initramfs=1
arm_64bit=1
upstream_kernel=1
enable_uart=1
[cm4]
otg_mode=1
[all]
X
run='systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target'
echo "console=tty1 console=ttyS1,115200 root=PARTUUID=$signature-02 rootfstype=ext4 fsck.repair=yes rootwait" \
  "init=/usr/lib/raspberrypi-sys-mods/firstboot $run" >cmdline.txt
# Smaller than the maker's, for an emulated card is read slowly.
truncate --size 112M fat
/usr/sbin/mkfs.vfat -F 32 -n bootfs fat >/dev/null
mcopy -i fat config.txt cmdline.txt firstrun.sh ::
mcopy -i fat root/boot/raspi-firmware/* ::
mcopy -i fat "root/boot/vmlinuz-$release" ::kernel8.img
mcopy -i fat "root/boot/initrd.img-$release" ::initramfs8
mcopy -i fat "root/usr/lib/linux-image-$release/broadcom/bcm2837-rpi-3-b.dtb" ::
rm -r root/boot/raspi-firmware root/boot/efi
mkdir root/boot/firmware
make_ext4 ext4 1400 root -L rootfs
truncate --size 1520M base.img
/usr/sbin/sfdisk --quiet base.img <<X
label: dos
label-id: 0x$signature
start=8192, size=112M, type=c
start=237568, size=1400M, type=83
X
dd if=fat of=base.img bs=1M seek=4 conv=notrunc,sparse status=none
dd if=ext4 of=base.img bs=1M seek=116 conv=notrunc,sparse status=none
rm -r root fat ext4 firstrun.sh config.txt cmdline.txt
