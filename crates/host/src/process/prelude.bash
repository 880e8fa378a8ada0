# Read by bash before a provisioning script (bash(1), BASH_ENV): writes down at which line it ended.
unset BASH_ENV
if [[ -n $RIAD_POSIX ]]; then unset RIAD_POSIX; set -o posix; fi
riad_line=0
riad_end() {
    trap - DEBUG EXIT
    if [[ $1 -ne 0 ]]; then printf '%s %s\n' "$2" "${3//$'\n'/ }" >/run/riad/.line; fi
    exit "$1"
}
set -T
# Calling riad_end is a command too, which is why the line before it counts.
trap 'riad_before=$riad_line riad_line=$LINENO' DEBUG
trap 'riad_end "$?" "$riad_before" "$BASH_COMMAND"' EXIT
