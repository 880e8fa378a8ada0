# Runs the provisioning script $1; $2 is what bash reads before it, and writes down at which line it ends
# (prelude.bash). Other shells have no such thing, and pay no heed to the variable.
rm -f /run/riad/.line
printf '%s\n' "$2" >/run/riad/.prelude
export BASH_ENV=/run/riad/.prelude DEBIAN_FRONTEND=noninteractive
script=/run/riad/$1
first=
read -r first <"$script"
case $first in
'#!/bin/sh' | '#!/bin/sh '* | '#!/usr/bin/sh' | '#!/usr/bin/sh '*) options=${first#*/sh} ;;
'#!/usr/bin/env sh') options= ;;
'#!'*) exec "$script" ;;
*) options= ;;
esac
# Debian's sh does not know the lines of its scripts. Bash in POSIX mode does, and takes backslashes in
# echo's arguments as dash does.
if command -v bash >/dev/null; then
    # The options of the first line are words of their own.
    RIAD_POSIX=1 exec bash -O xpg_echo $options "$script"
fi
exec "$script"
