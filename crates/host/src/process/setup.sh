# Makes a guest fit its user. It may run again at any time, and changes only what is not so yet.
# RIAD_HOSTNAME, RIAD_USER, RIAD_UID, RIAD_KEYS (a line each), RIAD_LOCALE and RIAD_ZONE say what is
# wanted; what is empty is not.
set -eu

has() { command -v "$1" >/dev/null 2>&1; }

hostname_and_hosts() {
    echo "$RIAD_HOSTNAME" >/etc/hostname
    [ -e /etc/hosts ] || echo '127.0.0.1 localhost' >/etc/hosts
    # sudo and mail look their own name up.
    if ! grep -q "^127\.0\.1\.1[[:space:]]$RIAD_HOSTNAME\$" /etc/hosts; then
        rest=$(grep -v '^127\.0\.1\.1[[:space:]]' /etc/hosts) || :
        printf '%s\n127.0.1.1 %s\n' "$rest" "$RIAD_HOSTNAME" >/etc/hosts
    fi
}

# Adds the user, with its number if that is free.
add_user() {
    shell=/bin/sh
    [ ! -x /bin/bash ] || shell=/bin/bash
    uid=$RIAD_UID
    if cut -d: -f3 /etc/passwd | grep -qx "$uid"; then uid=; fi
    if has useradd; then
        group=--user-group
        if grep -q "^$RIAD_USER:" /etc/group; then group="--gid $RIAD_USER"; fi
        useradd --create-home --shell "$shell" $group ${uid:+--uid "$uid"} \
            ${groups:+--groups "$groups"} "$RIAD_USER"
    elif has adduser; then
        # BusyBox's.
        adduser -D -s "$shell" ${uid:+-u "$uid"} "$RIAD_USER"
    else
        echo "there is neither useradd nor adduser to add the user $RIAD_USER with" >&2
        exit 1
    fi
}

user() {
    # Those that there are of them, with commas between.
    groups=$(grep -E '^(adm|sudo|systemd-journal|wheel):' /etc/group | cut -d: -f1 | tr '\n' ,)
    groups=${groups%,}
    if ! grep -q "^$RIAD_USER:" /etc/passwd; then
        add_user
    elif [ -n "$groups" ] && has usermod; then
        usermod --append --groups "$groups" "$RIAD_USER"
    fi
    # Whether sudo is there already or comes later.
    [ -d /etc/sudoers.d ] || mkdir -m 0750 /etc/sudoers.d
    (umask 0337 && echo "$RIAD_USER ALL=(ALL:ALL) NOPASSWD: ALL" >/etc/sudoers.d/.riad)
    mv -f /etc/sudoers.d/.riad /etc/sudoers.d/90-riad
}

keys() {
    name=${RIAD_USER:-root}
    home=$(grep "^$name:" /etc/passwd | cut -d: -f6)
    group=$(grep "^$name:" /etc/passwd | cut -d: -f4)
    (
        umask 077
        mkdir -p "$home/.ssh"
        touch "$home/.ssh/authorized_keys"
        printf '%s\n' "$RIAD_KEYS" | while IFS= read -r key; do
            grep -qxF "$key" "$home/.ssh/authorized_keys" ||
                printf '%s\n' "$key" >>"$home/.ssh/authorized_keys"
        done
    )
    chown "$name:$group" "$home/.ssh" "$home/.ssh/authorized_keys"
}

# One that the image does not have is not made: that takes a processor in software a minute.
locale_of_programs() {
    plain() { tr -d '-' | tr '[:upper:]' '[:lower:]'; }
    lang=C.UTF-8
    wanted=$(printf %s "$RIAD_LOCALE" | plain)
    case $RIAD_LOCALE in C | POSIX | C.UTF-8) lang=$RIAD_LOCALE ;; esac
    if [ "$lang" != "$RIAD_LOCALE" ] && has locale && locale -a 2>/dev/null | plain | grep -qxF "$wanted"; then
        lang=$RIAD_LOCALE
    fi
    if [ -d /etc/default ]; then echo "LANG=$lang" >/etc/default/locale; fi
    echo "LANG=$lang" >/etc/locale.conf
}

time_zone() {
    if [ -e "/usr/share/zoneinfo/$RIAD_ZONE" ]; then
        ln -snf "/usr/share/zoneinfo/$RIAD_ZONE" /etc/localtime
        echo "$RIAD_ZONE" >/etc/timezone
    fi
}

hostname_and_hosts
[ -z "$RIAD_USER" ] || user
[ -z "$RIAD_KEYS" ] || keys
[ -z "$RIAD_LOCALE" ] || locale_of_programs
[ -z "$RIAD_ZONE" ] || time_zone
sync
