# SPDX-License-Identifier: Apache-2.0
# A disk image as others make it, by their tools: GPT, EFI system partition with systemd-boot and kernel, ext4 root.
# Runs under fakeroot. $1: the tar of mmdebstrap; $2: a directory for the result, base.img.
set -eu
umask 022
cd "$2"
mkdir root
tar --extract --numeric-owner --file "$1" --directory root
release=$(ls root/usr/lib/modules)
uuid=11111111-1111-4111-8111-111111111111
echo base >root/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 base\n' >root/etc/hosts
: >root/etc/machine-id
mkdir -p root/boot/efi
printf 'PARTUUID=%s / ext4 errors=remount-ro 0 1\nLABEL=ESP /boot/efi vfat umask=0077 0 2\n' $uuid >root/etc/fstab
truncate --size 100M esp
/usr/sbin/mkfs.vfat -F 32 -n ESP esp >/dev/null
mmd -i esp ::EFI ::EFI/BOOT ::loader ::loader/entries
mcopy -i esp root/usr/lib/systemd/boot/efi/systemd-bootx64.efi ::EFI/BOOT/BOOTX64.EFI
mcopy -i esp "root/boot/vmlinuz-$release" ::vmlinuz
mcopy -i esp "root/boot/initrd.img-$release" ::initrd.img
printf 'title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions root=PARTUUID=%s ro console=tty0 console=ttyS0,115200\n' \
  $uuid >entry
mcopy -i esp entry ::loader/entries/debian.conf
printf 'timeout 0\n' >loader
mcopy -i esp loader ::loader/loader.conf
truncate --size 1100M ext4
/usr/sbin/mke2fs -q -t ext4 -d root ext4
truncate --size 1210M base.img
/usr/sbin/sfdisk --quiet base.img <<X
label: gpt
size=100M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
size=1100M, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root, uuid=$uuid
X
dd if=esp of=base.img bs=1M seek=1 conv=notrunc,sparse status=none
dd if=ext4 of=base.img bs=1M seek=101 conv=notrunc,sparse status=none
rm -r root esp ext4 entry loader
