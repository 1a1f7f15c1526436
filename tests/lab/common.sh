# Sourced by build and vm: where things are, and what they need of this host.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
clone=$(cd "$here/../.." && pwd)
cache=${WORLDSHIM_LAB_CACHE:-/var/cache/worldshim}
suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "$program: $*" >&2; }
die() { say "$*"; exit 125; }

# install_host_tools COMMAND:PACKAGE...: by apt, those of the commands that are missing
install_host_tools() {
	local missing=() entry
	for entry in "$@"; do
		command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
	done
	[ -e $keyring ] || missing+=(debian-archive-keyring)
	[ ${#missing[@]} -eq 0 ] && return
	say "installing on this host: ${missing[*]}"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

mirror_lines() {
	apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' | sort -u |
		while IFS='|' read -r label uri; do
			case $label in
			Debian) printf '%s\n' "deb $uri $suite main" "deb $uri $suite-updates main" \
				${also_suites:+"deb [check-valid-until=no] $uri $also_suites main"} ;;
			Debian-Security) echo "deb $uri $suite-security main" ;;
			esac
		done
}

# The apt lines of our suite, at the mirrors that this host's own apt uses. None if it is no Debian:
# mmdebstrap then takes its own mirror.
apt_lines() {
	local lines
	lines=$(mirror_lines)
	[ -n "$lines" ] || { apt-get update -qq; lines=$(mirror_lines); }
	[ -z "$lines" ] || echo "$lines"
}

# mmdebstrap in namespaces of its own: its mounts are not this host's, and it ends with us.
debian() {
	local lines
	mapfile -t lines < <(apt_lines)
	setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc \
		mmdebstrap --quiet --keyring=$keyring "$@" "${lines[@]}"
}
