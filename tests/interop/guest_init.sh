#!/bin/busybox sh
# Process 1 of a test machine: mounts, loads the modules that /etc/modules names, brings the network
# up, says so on the console, then runs whatever commands come in by the second serial port. Where there
# is systemd, that takes over as process 1, with the network up and the commands served beside it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /mnt /var
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t tmpfs run /run
/bin/busybox --install -s /bin
exec </dev/console >/dev/console 2>&1

while read -r module options; do
  modprobe "$module" $options || echo "nvmf-vm: cannot load $module"
done </etc/modules
mount -t configfs config /sys/kernel/config 2>/dev/null

hostname nvmf-vm
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
# A forwarded port arrives with destination 127.0.0.1, so that the discovery log names that address.
for interface in all eth0; do
  echo 1 >/proc/sys/net/ipv4/conf/$interface/route_localnet
  echo 0 >/proc/sys/net/ipv4/conf/$interface/rp_filter
done

stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo "nvmf-vm: ready"
# One line per command: an identifier, a time limit in seconds, the text in base64. The answer is
# framed by the identifier, so that nothing left over from an earlier command can be taken for it.
serve() {
  while read -r id limit text <&3; do
    printf %s "$text" | base64 -d >/run/command
    timeout -s KILL "$limit" sh /run/command >/run/output 2>&1 </dev/null 3>&-
    status=$?
    {
      printf '\n@begin %s\n' "$id"
      base64 /run/output
      printf '@end %s %s\n' "$id" "$status"
    } >&3
  done
  poweroff -f
}
# Not in process 1: that one inherits orphans, and a SIGCHLD in the middle of a line makes busybox's
# `read` forget what it has read of it.
serve &
if [ -x /lib/systemd/systemd ]; then
  mount -o remount,mode=0755 /run
  exec env -i PATH="$PATH" TERM=dumb /lib/systemd/systemd 3>&-
fi
while :; do
  wait
  sleep 1
done
