#!/bin/sh
# Installs calmcam on a Raspberry Pi 5 (or any Debian): system packages, /opt/calmcam/venv, optionally the service.
#   deploy/install.sh [--dry-run] [--service]
# May be run again at any time: what is there stays, a service that is enabled is started anew. Pins no apt version: the archive's own set fits together.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
from=$PWD venv=/opt/calmcam/venv dry="" service=""
for option; do
    case $option in
    --dry-run) dry=1 ;;
    --service) service=1 ;;
    *) echo "install.sh: unknown option $option; expected --dry-run or --service" >&2; exit 2 ;;
    esac
done

cd / # Python imports from the folder that it is called in

say() { echo "calmcam: $*"; }
root() { # run as root, or say what would be run
    if [ -n "$dry" ]; then echo "would run: $*"; return; fi
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

hailo_on_bus() { # a PCI device of vendor 1e60, Hailo Technologies; 2864 is the Hailo-8 and 8L
    for entry in "${SYSFS:-/sys}"/bus/pci/devices/*; do
        if grep -qs 0x1e60 "$entry/vendor" && grep -qs "$1" "$entry/device"; then return; fi
    done
    return 1
}
available() { [ -n "$(LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([^(].*\)/\1/p')" ]; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_hailo() {
    if installed hailo-h10-all; then
        say "hailo-h10-all is installed: the line for the Hailo-10H, which cannot live beside the Hailo-8's; remove it first" >&2
        exit 2
    fi
    installed dkms || root apt-get install -y dkms
    for package in hailo-all hailort; do # hailo-all is what the Pi's archive calls the set for Hailo-8 and 8L
        installed "$package" && return
        if available "$package"; then
            root apt-get install -y "$package"
            say "reboot before the first run, so that the driver is loaded"
            return
        fi
    done
    say "a Hailo is on the PCIe bus, but apt knows neither hailo-all nor hailort; add the Raspberry Pi archive and run this again" >&2
    exit 2
}

# python3-hailort installs for the system's interpreter only: the environment must be made by it and must see it.
python=${PYTHON:-/usr/bin/python3}
if [ -n "$dry" ]; then echo "would run: $here/deploy/system_libraries.sh"; else PYTHON=$python "$here/deploy/system_libraries.sh"; fi
if hailo_on_bus 0x2864; then install_hailo
elif hailo_on_bus 0x; then say "on the PCIe bus is a Hailo-10H or 15, which calmcam does not use: the CPU classifies"
else say "no Hailo on the PCIe bus: calmcam will run on the CPU"; fi

# One that was half made, or whose Python the system has replaced since, has no pip of its own.
if ! "$venv/bin/python" -m pip --version 2>/dev/null | grep -q " from $venv/"; then
    root "$python" -m venv --clear --system-site-packages "$venv"
fi
# What Debian built for Pythons before 3.13 (HailoRT, Picamera2) does not work with NumPy 2; later ones have no NumPy 1.
constraints=""
if "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then
    constraints="-c $here/constraints-hailo.txt"
fi
copy="a copy of $here" # what root builds stays out of the checkout, what was built there out of the environment
if [ -z "$dry" ]; then
    copy=$(mktemp -d)
    trap 'root rm -rf "$copy"' EXIT
    (cd "$here" && cp -R setup.cfg pyproject.toml README.md LICENSE edge_app trainer deploy models "$copy")
fi
# shellcheck disable=SC2086 # two words on purpose
root "$venv/bin/python" -m pip install --quiet --upgrade $constraints "$copy"
root ln -sf "$venv/bin/calmcam" /usr/local/bin/calmcam

if [ -n "$service" ] || systemctl is-enabled --quiet calmcam.service 2>/dev/null; then
    id calmcam >/dev/null 2>&1 || root useradd --system --home-dir /var/lib/calmcam --groups video calmcam
    [ -e /etc/calmcam.toml ] || root install -m 640 -g calmcam "$here/deploy/calmcam.toml" /etc/calmcam.toml
    root install -m 644 "$here/deploy/calmcam.service" /etc/systemd/system/calmcam.service
    root systemctl daemon-reload
    root systemctl enable calmcam.service
    [ -n "$dry" ] || say "starting the service, which is up at its first picture"
    root systemctl restart calmcam.service || true # it is tried again for ever; the doctor says what it lacks
fi
if [ -n "$dry" ]; then echo "would run: $venv/bin/calmcam doctor"
elif ! (cd "$from" && "$venv/bin/calmcam" doctor); then say "mend what is broken above; after a reboot ask again: calmcam doctor"; fi
