#!/bin/sh
# Reads the kernel's virtual camera (vivid) by V4L2, in a virtual machine that sees this machine's files: narrows-head answers frames of
# v4l2:/dev/video0, the camera is taken away and comes back. Where a tool is missing, one line names it and the exit code is 77.
set -eu
cd "$(dirname "$0")/.."
head=${1:?vivid.sh NARROWS_HEAD}
missing=
for tool in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio ffmpeg:ffmpeg apt-get:apt dpkg:dpkg; do
    command -v "${tool%%:*}" > /dev/null || missing="$missing, ${tool%%:*} (apt install ${tool#*:})"
done
if [ -n "$missing" ]; then
    echo "vivid: skipped; missing: ${missing#, }"
    exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The kernels of virtual machines have no cameras; Debian's general one is fetched and unpacked, not installed.
package=$(apt-cache depends linux-image-amd64 2> /dev/null | awk '/Depends: linux-image/ { print $2; exit }')
if [ -z "$package" ] || ! (cd "$scratch" && apt-get download "$package" > apt.log 2>&1); then
    echo "vivid: skipped; missing: Debian's package linux-image-amd64"
    exit 77
fi
dpkg -x "$scratch/$package"_*.deb "$scratch/kernel"
version=${package#linux-image-}

# A first file system with the modules of the camera and of the way to this machine's files.
root=$scratch/initramfs
mkdir -p "$root/bin" "$root/lib/modules" "$root/host" "$root/proc" "$root/sys" "$root/dev"
cp "$(command -v busybox)" "$root/bin/busybox"
cp -r "$scratch/kernel/lib/modules/$version" "$root/lib/modules/"
for unused in net/wireless drivers/net drivers/gpu drivers/scsi drivers/infiniband drivers/usb sound; do
    rm -rf "$root/lib/modules/$version/kernel/$unused"
done
depmod -b "$root" "$version" 2> /dev/null || busybox depmod -b "$root" "$version"
cat > "$root/init" << 'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in virtio_pci 9pnet_virtio 9p; do modprobe "$module"; done
# Nothing but a camera, so that it is the same device when it comes back.
modprobe vivid node_types=0x1
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 host /host
for place in proc sys dev; do mount --bind "/$place" "/host/$place"; done
mount -t tmpfs none /host/mnt
. /commands
poweroff -f
INIT
chmod +x "$root/init"
cat > "$root/commands" << COMMANDS
lines() {
    seconds=0
    while [ "\$(wc -l < /host/mnt/lines)" -lt "\$1" ] && [ \$seconds -lt 240 ]; do
        sleep 1
        seconds=\$((seconds + 1))
    done
}
chroot /host /bin/sh -c "cd '$PWD' && exec '$head' run --bundle models/bundles/lite2 --path local --tasks classify --fps 5 --stall 90 \
    --source usb=v4l2:/dev/video0,640x360" > /host/mnt/lines 2> /host/mnt/said &
process=\$!
lines 8
# The camera is unplugged and plugged in again.
echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind
sleep 4
echo vivid.0 > /sys/bus/platform/drivers/vivid/bind
lines 20
kill -TERM \$process
wait
sed 's/^/vivid-line: /' /host/mnt/lines | cut -c1-300
sed 's/^/vivid-said: /' /host/mnt/said
COMMANDS
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1 > "$scratch/initramfs.gz")

# Emulated, so that it works wherever the tests do.
timeout 580 qemu-system-x86_64 -machine "pc,accel=tcg" -cpu max -m 2048 -smp 2 -display none -serial stdio -nic none -no-reboot \
    -kernel "$scratch/kernel/boot/vmlinuz-$version" -initrd "$scratch/initramfs.gz" \
    -append "console=ttyS0 quiet panic=-1 ignore_loglevel=0" \
    -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on" < /dev/null > "$scratch/console" 2>&1 || true
tr -d '\r' < "$scratch/console" | grep '^vivid' || { tail -n 30 "$scratch/console"; exit 1; }

console=$scratch/console
answered=$(grep -c '^vivid-line: .*"camera":"usb".*"status":"answered"' "$console" || true)
lost=$(grep -c '^vivid-said: .*camera usb: .*it is opened again' "$console" || true)
back=$(grep -c '^vivid-said: .*camera usb: frames again after' "$console" || true)
echo "vivid: $answered frames answered, lost $lost times, back $back times"
[ "$answered" -ge 20 ] && [ "$lost" -ge 1 ] && [ "$back" -ge 1 ]
