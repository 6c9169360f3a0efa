# SPDX-License-Identifier: Apache-2.0
# What all disk images begin with, and what they are made by. Runs under fakeroot, before the script of one system.
# $1: the tar of mmdebstrap; $2: a directory for the result, base.img.
set -eu
umask 022
cd "$2"
mkdir root
tar --extract --numeric-owner --file "$1" --directory root
release=$(ls root/usr/lib/modules)
echo base >root/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 base\n' >root/etc/hosts
: >root/etc/machine-id
mkdir -p root/boot/efi

# An EFI system partition of 100 MiB with this label, as the file esp.
make_esp() {
  truncate --size 100M esp
  /usr/sbin/mkfs.vfat -F 32 -n "$1" esp >/dev/null
  mmd -i esp ::EFI ::EFI/BOOT
}

# An ext4 as the file $1, $2 MiB long, of the directory $3; further words are for mke2fs.
make_ext4() {
  file=$1 directory=$3
  truncate --size "$2M" "$file"
  shift 3
  /usr/sbin/mke2fs -q -t ext4 "$@" -d "$directory" "$file"
}

# The disk: a GPT with the partitions of standard input, in sfdisk's words, and the files $@ in them, one behind the other.
make_disk() {
  { echo 'label: gpt'; cat; } >table
  end=1
  for part; do end=$((end + $(stat --format %s "$part") / 1048576)); done
  truncate --size "$((end + 9))M" base.img
  /usr/sbin/sfdisk --quiet base.img <table
  at=1
  for part; do
    dd if="$part" of=base.img bs=1M seek=$at conv=notrunc,sparse status=none
    at=$((at + $(stat --format %s "$part") / 1048576))
  done
  rm -r root table "$@"
}
