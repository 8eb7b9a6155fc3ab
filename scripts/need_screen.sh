#!/bin/sh
# The plugin's tests open real windows. Without a screen they need Xvfb and two libraries that Qt loads.
set -eu
if [ "$(uname)" != Linux ]; then exit 0; fi
if command -v Xvfb >/dev/null 2>&1 && ldconfig -p | grep -q libxcb-icccm && ldconfig -p | grep -q libxcb-keysyms; then
    exit 0
fi
packages="xvfb libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-cursor0 libxcb-shape0 libxcb-xinerama0 libxkbcommon-x11-0 libegl1 libgl1 libdbus-1-3"
if command -v apt-get >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then become=""; elif sudo -n true 2>/dev/null; then become="sudo"; else become="none"; fi
    if [ "$become" != none ]; then
        echo "Installing a virtual screen: $packages"
        $become apt-get update -qq
        # shellcheck disable=SC2086
        $become env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null
        exit 0
    fi
fi
if [ -n "${DISPLAY:-}" ]; then
    echo "Xvfb is not installed: the tests will open windows on your screen."
    exit 0
fi
echo "The tests need a screen. Install these packages (Debian names) and run again: $packages" >&2
exit 1
