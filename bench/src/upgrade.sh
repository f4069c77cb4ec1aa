#!/bin/sh
# Run by mmdebstrap beside the chroot $1: `keep` packs the tree as it is into it (mmdebstrap copies that out),
# `upgrade MIRROR SECURITY` applies the updates.
set -eu
root=$1
case $2 in
    keep)
        chroot "$root" dpkg-query -W > "$root/v1.packages"
        # Proc and the like are mounted just now.
        tar -C "$root" --one-file-system --numeric-owner --sort=name --exclude=./v1.tar -cf "$root/v1.tar" .
        ;;
    upgrade)
        rm "$root/v1.tar" "$root/v1.packages"
        key=/usr/share/keyrings/debian-archive-keyring.gpg
        {
            echo "deb [signed-by=$key] $3 bookworm-updates main"
            echo "deb [signed-by=$key] $4 bookworm-security main"
        } > "$root/etc/apt/sources.list.d/updates.list"
        export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" DEBIAN_FRONTEND=noninteractive
        apt-get -q -y update
        apt-get -q -y -o DPkg::Chroot-Directory="$root" upgrade
        chroot "$root" dpkg-query -W > "$root/v2.packages"
        ;;
esac
