#!/bin/sh
# Installs, starts, upgrades, removes and purges the packages in /packages, inside the machine whose packages they become. Run by
# packages.sh, as root, with systemd or without; ends with the line "lifecycle: passed".
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
options="--force-confdef --force-confold"

step() {
	echo "lifecycle: $*"
}

fail() {
	echo "lifecycle: FAILED: $*"
	if [ -d /run/systemd/system ]; then
		systemctl --no-pager status narrows-head narrows-tail || true
		journalctl --no-pager -n 60 -u narrows-head -u narrows-tail || true
	else
		cat /tmp/narrows-*.log || true
	fi
	exit 1
}

# Waits up to $1 seconds until the rest, a command, succeeds.
within() {
	left=$1
	shift
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || fail "not within the time: $*"
		sleep 1
	done
}

if [ -d /run/systemd/system ]; then
	with_systemd=true
else
	with_systemd=false
	step "systemd does not run here: the commands of the units are run as their users"
fi

# Starts the service $1.
start() {
	if $with_systemd; then
		systemctl enable --quiet "$1"
		systemctl start "$1" || fail "$1 does not start"
		return
	fi
	unit=$(find /lib/systemd/system /usr/lib/systemd/system -name "$1.service" | head -n 1)
	command=$(sed -n 's/^ExecStart=//p' "$unit")
	# shellcheck disable=SC2046,SC2086 # one word for each variable of the unit, and for each of its command
	(cd "/var/lib/$1" && exec setpriv --reuid "$1" --regid "$1" --init-groups --no-new-privs \
		env $(sed -n 's/^Environment=//p' "$unit") $command >"/tmp/$1.log" 2>&1) &
	echo $! >"/tmp/$1.pid"
}

# Stops the service $1, where the package's scripts do not.
stop() {
	if ! $with_systemd; then
		kill "$(cat "/tmp/$1.pid")"
		wait "$(cat "/tmp/$1.pid")" 2>/dev/null || true
	fi
}

process() {
	if $with_systemd; then systemctl show --property MainPID --value "$1"; else cat "/tmp/$1.pid"; fi
}

answers() {
	grep -c '"status":"answered","path":"split"' /var/lib/narrows-head/answers.jsonl 2>/dev/null || true
}

# Whether more frames than $1 were answered by the server.
more_than() {
	[ "$(answers)" -gt "$1" ]
}

step install
dpkg --install /packages/narrows-bundle-lite2_*.deb /packages/narrows-bundle-lite2-server_*.deb \
	/packages/narrows-head_*.deb /packages/narrows-tail_*.deb
for program in head tail; do
	"narrows-$program" --version
	id "narrows-$program"
	[ "$(stat -c %U:%a "/var/lib/narrows-$program/identity")" = "narrows-$program:700" ] || fail "the folder of the identity"
	[ -e "/usr/share/man/man1/narrows-$program.1.gz" ] || fail "no man page of narrows-$program"
	[ -e "/usr/share/bash-completion/completions/narrows-$program" ] || fail "no completions of narrows-$program"
	dpkg-query --show --showformat '${Conffiles}\n' "narrows-$program" | grep -q "/etc/narrows/$program.toml" ||
		fail "$program.toml is no configuration file of the package"
	if $with_systemd; then
		systemd-analyze verify --man=no "narrows-$program.service" || fail "systemd does not understand the unit"
		! systemctl is-enabled --quiet "narrows-$program" || fail "narrows-$program is enabled before it is configured"
	fi
done
id narrows-head | grep -q 'video' || fail "narrows-head may not use cameras"
id narrows-head | grep -q 'i2c' || fail "narrows-head may not use I2C"
narrows-head doctor --bundle /usr/share/narrows/bundles/lite2 | grep -i 'vectors\|local network'

step configure
narrows-tail certs init --dir /root/certs --name localhost
narrows-tail certs device board --dir /root/certs
install -o narrows-tail -g narrows-tail -m 600 /root/certs/server/* /var/lib/narrows-tail/identity/
install -o narrows-head -g narrows-head -m 600 /root/certs/devices/board/* /var/lib/narrows-head/identity/
sed -i -e 's|^#server = .*|server = ["localhost:7461"]|' -e 's|^#source = .*|source = ["/photos"]|' \
	-e 's|^#repeat = .*|repeat = 0|' -e 's|^#fps = .*|fps = 2|' -e 's|^#tasks = .*|tasks = ["classify"]|' \
	-e 's|^#budget = .*|budget = 60000|' -e 's|^#lines = .*|lines = "/var/lib/narrows-head/answers.jsonl"|' /etc/narrows/head.toml
setpriv --reuid narrows-tail --regid narrows-tail --init-groups narrows-tail check --config /etc/narrows/tail.toml ||
	fail "the settings are wrong"
setpriv --reuid narrows-head --regid narrows-head --init-groups narrows-head check --config /etc/narrows/head.toml ||
	fail "the settings are wrong"

step start
start narrows-tail
start narrows-head
within 300 more_than 2
if $with_systemd; then
	systemctl is-active narrows-tail narrows-head || fail "not active"
	step reload
	systemctl reload narrows-tail || fail "reload"
	within 60 more_than "$(answers)"
	step "a killed head is started again"
	systemctl kill --signal KILL narrows-head
	within 120 more_than "$(answers)"
fi

step upgrade
before=$(process narrows-head)
stop narrows-head
# shellcheck disable=SC2086 # one word for each option
dpkg --install $options /packages/upgrade/*.deb
dpkg-query --show narrows-head narrows-tail
grep -q '^source = \["/photos"\]' /etc/narrows/head.toml || fail "the upgrade has replaced head.toml"
[ -s /var/lib/narrows-head/identity/key.pem ] || fail "the upgrade has removed the identity"
$with_systemd || start narrows-head
[ "$(process narrows-head)" != "$before" ] || fail "the upgrade has not restarted narrows-head"
within 120 more_than "$(answers)"

step remove
stop narrows-head
stop narrows-tail
dpkg --remove narrows-head narrows-tail
for program in head tail; do
	[ ! -e "/usr/bin/narrows-$program" ] || fail "the program is still there"
	[ -e "/etc/narrows/$program.toml" ] || fail "remove has removed the settings"
	[ -e "/var/lib/narrows-$program/identity/key.pem" ] || fail "remove has removed the identity"
	if $with_systemd; then
		! systemctl is-active --quiet "narrows-$program" || fail "narrows-$program still runs"
	fi
done

step purge
dpkg --purge narrows-head narrows-tail narrows-bundle-lite2-server narrows-bundle-lite2
for left in /etc/narrows /var/lib/narrows-head /var/lib/narrows-tail /usr/share/narrows /usr/lib/narrows; do
	[ ! -e $left ] || fail "purge has left $left: $(find $left)"
done
echo "lifecycle: passed"
