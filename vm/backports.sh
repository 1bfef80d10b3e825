#!/bin/sh
# Give a stock Debian the newest kernel of its backports, which has zero copy on virtio; it runs from the next
# start on.
set -eu

export DEBIAN_FRONTEND=noninteractive
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
apt-get -q update
# where the system's own packages come from
# shellcheck disable=SC2016 # apt's variable
site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Component: main' "Codename: $suite" | head -n 1)
echo "deb $site $suite-backports main" >/etc/apt/sources.list.d/backports.list
apt-get -q update
apt-get -q -y install --no-install-recommends -t "$suite-backports" linux-image-amd64

# virtio_net as a module loses what is sent in zero copy unless this place is kept free (vm/qemu.py says why).
cat >/etc/default/grub.d/xdpipe.cfg <<'CFG'
GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX nokaslr memmap=64M\\\$0x40000000"
CFG
update-grub
