# SPDX-License-Identifier: Apache-2.0
# Debian as others make it, by their tools: EFI system partition with systemd-boot and kernel, ext4 root. After begin.sh.
uuid=11111111-1111-4111-8111-111111111111
printf 'PARTUUID=%s / ext4 errors=remount-ro 0 1\nLABEL=ESP /boot/efi vfat umask=0077 0 2\n' $uuid >root/etc/fstab
make_esp ESP
mmd -i esp ::loader ::loader/entries
mcopy -i esp root/usr/lib/systemd/boot/efi/systemd-bootx64.efi ::EFI/BOOT/BOOTX64.EFI
mcopy -i esp "root/boot/vmlinuz-$release" ::vmlinuz
mcopy -i esp "root/boot/initrd.img-$release" ::initrd.img
printf 'title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions root=PARTUUID=%s ro console=tty0 console=ttyS0,115200%s\n' \
  $uuid "${options:-}" | mcopy -i esp - ::loader/entries/debian.conf
printf 'timeout 0\n' | mcopy -i esp - ::loader/loader.conf
make_ext4 ext4 1100 root
make_disk esp ext4 <<X
size=100M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
size=1100M, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root, uuid=$uuid
X
