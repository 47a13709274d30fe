# What `jarvis node install`, `upgrade` and `uninstall` do on a host: sent over ssh after the variables
# ACTION PREFIX STATE URL TOKEN PIN NAME FLAGS NODE_UNIT SUPERVISOR_UNIT PURGE. Answers are lines KEY=VALUE.
set -eu
if [ "$(id -u)" -eq 0 ]; then
    : "${PREFIX:=/opt/jarvis}" "${STATE:=/var/lib/jarvis}"
else
    : "${PREFIX:=$HOME/.local/share/jarvis-program}" "${STATE:=$HOME/.local/state/jarvis}"
fi
units=/etc/systemd/system
python="$PREFIX/current/bin/python"

jarvis() { JARVIS_HOME="$STATE" "$python" -m jarvis.cli "$@"; }
has_systemd() { [ -d /run/systemd/system ] && [ "$(id -u)" -eq 0 ]; }
runs() {
    pid="$(cat "$STATE/node/supervisor.pid" 2>/dev/null)" && [ -n "$pid" ] &&
        tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$STATE/node"
}
yes_if() { if "$@"; then echo yes; else echo no; fi; }

case "$ACTION" in
probe)
    version="$(readlink "$PREFIX/current" 2>/dev/null)" || version=
    echo "prefix=$PREFIX"
    echo "state=$STATE"
    echo "version=${version#versions/}"
    echo "systemd=$(yes_if has_systemd)"
    echo "joined=$(yes_if test -e "$STATE/credentials/node.pem")"
    echo "runs=$(yes_if runs)"
    ;;
receive) # the bundle follows this script on another connection
    umask 077
    rm -rf "$PREFIX/incoming"
    mkdir -p "$PREFIX/incoming"
    ;;
unpack)
    trap 'rm -rf "$PREFIX/incoming"' EXIT
    tar -C "$PREFIX/incoming" -xzf "$PREFIX/incoming/bundle.tar.gz"
    "$PREFIX/incoming/jarvis-bundle/install" --prefix "$PREFIX" >/dev/null
    ;;
join)
    mkdir -p "$STATE"
    # shellcheck disable=SC2086 # FLAGS is quoted words
    eval "jarvis join \"\$URL\" --token \"\$TOKEN\" --ca-pin \"\$PIN\" --name \"\$NAME\" --no-start $FLAGS" >/dev/null
    ;;
start)
    if has_systemd; then
        printf '%s' "$NODE_UNIT" >"$units/jarvis-node.service"
        printf '%s' "$SUPERVISOR_UNIT" >"$units/jarvis-supervisor.service"
        systemctl daemon-reload
        systemctl enable --quiet --now jarvis-node.service
    else
        jarvis join >/dev/null
    fi
    ;;
renew)
    "$python" -m jarvis.worker.renew "$STATE/node"
    ;;
stop)
    if has_systemd && [ -e "$units/jarvis-node.service" ]; then
        systemctl disable --quiet --now jarvis-node.service
        [ ! -e "$units/jarvis-supervisor.service" ] || systemctl stop jarvis-supervisor.service
        rm -f "$units/jarvis-node.service" "$units/jarvis-supervisor.service"
        systemctl daemon-reload
    elif runs; then
        jarvis down >/dev/null
    fi
    ;;
remove)
    rm -rf "$PREFIX/versions" "$PREFIX/incoming" "$PREFIX/current"
    rmdir "$PREFIX" 2>/dev/null || true
    [ "$PURGE" = no ] || rm -rf "$STATE"
    ;;
esac
