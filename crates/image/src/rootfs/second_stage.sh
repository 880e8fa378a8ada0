#!/bin/sh
# The second stage of a Riad image: runs once, as root, inside the new system, and configures the
# packages that were unpacked from outside. Prints "RIAD-PROGRESS n/m text" lines; everything else
# goes to the log, whose end is shown when something fails.
set -eu

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C TERM=dumb
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes
export DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT='' DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
umask 022
cd /

log=/var/log/riad-second-stage.log
result=/riad-second-stage.result
: >"$log"

fail() {
    echo "riad: $1; the last lines of its output:" >&2
    tail -n 25 "$log" >&2 || :
    exit 1
}

done=0
total=1
progress() {
    echo "RIAD-PROGRESS $done/$total $1"
}

# Every package that is not configured yet is a step.
unconfigured() {
    dpkg-query -W -f '${db:Status-Status}\n' | grep -vc '^installed$' || :
}

# Runs dpkg with the arguments given; prints progress; returns dpkg's status.
dpkg_with_progress() {
    rm -f "$result"
    { dpkg --status-fd 3 "$@" 3>&1 >>"$log" 2>&1 </dev/null; echo "result: $?"; } |
        while IFS=': ' read -r kind first second; do
            case $kind in
            processing)
                # Steps are counted when they begin; a package may be visited more than once.
                if [ "$done" -lt "$total" ]; then done=$((done + 1)); fi
                progress "$second"
                ;;
            result) echo "$first" >"$result" ;;
            esac
        done
    read -r status <"$result" && return "$status"
}

# On a processor in software starting a program is what costs. Two helpers start thousands of
# others, and are put aside until the end.
put_aside() {
    if [ -x "$1" ]; then
        mv "$1" "$1.riad"
        printf '#!/bin/sh\nexit 0\n' >"$1"
        chmod 755 "$1"
    fi
}
put_back() {
    if [ -e "$1.riad" ]; then mv -f "$1.riad" "$1"; fi
}

# It handles upgrades from older versions. There is no older version of anything here, and then it
# does nothing, after long thought.
maintscript_helper=/usr/bin/dpkg-maintscript-helper
# What it does is done by certificates() below, if nobody hooks into it.
update_certificates=/usr/sbin/update-ca-certificates
[ -z "$(ls /etc/ca-certificates/update.d 2>/dev/null)" ] || update_certificates=/nonexistent

# Links to the certificates, and all of them in one file, as update-ca-certificates(8) makes them,
# but in one program instead of a thousand.
certificates() {
    perl -e '
        use strict;
        my ($from, $to) = ("/usr/share/ca-certificates", "/etc/ssl/certs");
        open(my $list, "<", "/etc/ca-certificates.conf") or die "$!";
        open(my $bundle, ">", "$to/ca-certificates.crt") or die "$!";
        while (my $line = <$list>) {
            chomp $line;
            next if $line eq "" or $line =~ /^[#!]/ or not -f "$from/$line";
            my $name = $line;
            $name =~ s{.*/}{};
            $name =~ s{\.crt$}{};
            $name =~ tr/ ,()/__==/;
            symlink("$from/$line", "$to/$name.pem") or $!{EEXIST} or die "$name: $!";
            open(my $certificate, "<", "$from/$line") or die "$line: $!";
            local $/;
            my $text = <$certificate>;
            $text .= "\n" unless $text =~ /\n\z/;
            print $bundle $text or die "$!";
        }
        close($bundle) or die "$!";
    ' && chmod 644 /etc/ssl/certs/ca-certificates.crt && openssl rehash /etc/ssl/certs
}

ldconfig >>"$log" 2>&1 || fail "ldconfig failed"
put_aside $maintscript_helper
put_aside $update_certificates

DPKG_RUNNING_VERSION=$(dpkg-query -W -f '${Version}' dpkg)
export DPKG_RUNNING_VERSION
total=$(unconfigured)

progress "preparing"
while read -r name file_name arch; do
    echo "preinst of $name" >>"$log"
    DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=$name DPKG_MAINTSCRIPT_ARCH=$arch \
        "/var/lib/dpkg/info/$file_name.preinst" install >>"$log" 2>&1 </dev/null ||
        fail "the preinst script of $name failed"
done </riad-second-stage.preinst

# Users and groups first: the scripts of other packages speak of them by name.
dpkg_with_progress --force-depends --configure base-passwd || fail "base-passwd cannot be configured"
done=1

# The second pass is for packages that need each other in a circle.
dpkg_with_progress --configure -a ||
    dpkg_with_progress --force-depends --configure -a || :

left=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | grep -v '^installed ' || :)
[ -z "$left" ] || fail "not all packages could be configured ($(echo $left))"

done=$total
progress "finishing"
put_back $maintscript_helper
if [ -e $update_certificates.riad ]; then
    put_back $update_certificates
    certificates >>"$log" 2>&1 || fail "the certificates could not be set up"
fi
for modules in /lib/modules/*; do
    if [ -d "$modules/kernel" ] && [ ! -e "$modules/modules.dep.bin" ] && command -v depmod >/dev/null
    then
        depmod -a "${modules##*/}" >>"$log" 2>&1 || fail "depmod failed"
    fi
done

rm -f /usr/sbin/policy-rc.d /var/lib/dpkg/*-old /var/cache/debconf/*-old /var/lib/dbus/machine-id \
    /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log /var/log/apt/*.log \
    "$log" "$result" /riad-second-stage.preinst /riad-second-stage
# An empty file makes systemd give each machine an identity of its own when it first starts.
: >/etc/machine-id
chmod 444 /etc/machine-id
echo ok >/etc/riad-image-ok
sync
progress "done"
