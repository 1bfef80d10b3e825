#!/bin/sh
# Make a Debian system ready to run xdpipe and its tests from a tree that is mounted at /work.
#
# usage: provision.sh TREE [WHEELS]
#   TREE    where vm/packages.txt and pyproject.toml lie
#   WHEELS  a directory of wheels of all Python dependencies; without it pip asks its index
#
# The image (vm/image.py) and both machines of the Vagrantfile are made by this one script.
set -eu

tree=$1
wheels=${2:-}
export DEBIAN_FRONTEND=noninteractive

# shellcheck disable=SC2046 # one word a package
set -- $(sed 's/#.*//' "$tree/vm/packages.txt")
missing=
for package; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    apt-get -q update
    # shellcheck disable=SC2086 # one word a package
    apt-get -q -y install --no-install-recommends $missing
fi

# The same dependencies as ./dev installs on a developer's machine, beside the system's bcc.
venv=/opt/xdpipe
[ -x $venv/bin/pip ] || python3 -m venv --system-site-packages $venv
python3 - "$tree/pyproject.toml" >/tmp/dependencies <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["test"]))
PYTHON
if [ -n "$wheels" ]; then
    set -- --no-index --find-links "$wheels"
else
    set --
fi
$venv/bin/pip install -q --disable-pip-version-check --only-binary :all: "$@" -r /tmp/dependencies
rm /tmp/dependencies

# xdpipe itself is run from the tree.
echo /work >"$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/xdpipe.pth"
cat >$venv/bin/xdpipe <<'SHELL'
#!/bin/sh
exec /opt/xdpipe/bin/python -P -m xdpipe "$@"
SHELL
chmod 755 $venv/bin/xdpipe
ln -sf $venv/bin/xdpipe /usr/local/bin/xdpipe

# The host has built the C core in the tree (./dev setup), unless it is a host that ./dev does not work on.
if [ -d "$tree/xdpipe" ] && ! (cd "$tree" && $venv/bin/python -c 'import xdpipe.core._core, xdpipe._libpcap') 2>/dev/null; then
    apt-get -q update
    apt-get -q -y install --no-install-recommends gcc libc6-dev python3-dev
    $venv/bin/pip install -q --disable-pip-version-check --only-binary :all: 'setuptools>=77'
    (cd "$tree" && $venv/bin/python -W ignore setup.py -q build_ext --inplace)
fi
