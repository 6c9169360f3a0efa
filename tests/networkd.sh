# Runs systemd-networkd in namespaces of its own (unshare --net --mount), and prints its log. A read-only /sys makes networkd
# work without udev.
# $1: directory of its files. $2: command before it starts. $3: command that succeeds when it is done. $4: how long to wait
# for that, tenths of a second. $5: command whose output comes before the log.
set -e
chmod 755 /run/systemd
mount -t tmpfs -o mode=755 none /run/systemd/netif
chown systemd-network:systemd-network /run/systemd/netif
mount --bind "$1" /etc/systemd/network
mount -t sysfs -o ro none /sys
log=/run/systemd/netif/firstboot-log
eval "$2"
SYSTEMD_LOG_LEVEL=info SYSTEMD_LOG_TARGET=console /usr/lib/systemd/systemd-networkd 2>$log &
networkd=$!
for _ in $(seq "$4"); do
    if grep -q 'Enumeration completed' $log && eval "$3" >/dev/null; then break; fi
    sleep 0.1
done
eval "$5"
cat $log
kill $networkd
