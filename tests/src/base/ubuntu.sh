# SPDX-License-Identifier: Apache-2.0
# Ubuntu as its cloud images are: EFI system partition with GRUB, /boot of its own, ext4 root, found by their labels; in the
# order in which Ubuntu's installer has them. After begin.sh.
cat >root/etc/fstab <<X
LABEL=cloudimg-rootfs / ext4 discard,commit=30,errors=remount-ro 0 1
LABEL=BOOT /boot ext4 defaults 0 2
LABEL=UEFI /boot/efi vfat umask=0077 0 1
X
make_esp UEFI
mmd -i esp ::EFI/ubuntu
# Ubuntu's signed GRUB reads this path; it loads no modules.
mcopy -i esp root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::EFI/BOOT/BOOTX64.EFI
printf 'search --no-floppy --label --set=root BOOT\nset prefix=($root)/grub\nconfigfile $prefix/grub.cfg\n' |
  mcopy -i esp - ::EFI/ubuntu/grub.cfg
cat >root/boot/grub/grub.cfg <<X
set timeout=0
menuentry Ubuntu {
  search --no-floppy --label --set=root BOOT
  linux /vmlinuz-$release root=LABEL=cloudimg-rootfs ro console=tty1 console=ttyS0
  initrd /initrd.img-$release
}
X
mv root/boot boot
mkdir root/boot
make_ext4 ext4-boot 300 boot -L BOOT
rm -r boot
make_ext4 ext4 1000 root -L cloudimg-rootfs
make_disk esp ext4-boot ext4 <<X
size=100M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
size=300M, type=BC13C2FF-59E6-4262-A352-B275FD6F7172
size=1000M, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
X
