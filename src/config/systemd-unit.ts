// The unit that `pgdog install --systemd` prints. Hardened as far as a program can be that compiles code while it runs, loads
// plugins, and talks to any address: `systemd-analyze security` must not rate it above 3 (test/config/systemd-unit.test.ts).

import { resolve } from "node:path";
import { CREDENTIAL } from "./secrets.ts";

/** Where a file lies that was not named. */
const CONFIG = "/etc/pgdog/pgdog.toml";

/** What the service may not do. */
const HARDENED = `DynamicUser=yes
RuntimeDirectory=pgdog
UMask=0077
CapabilityBoundingSet=
NoNewPrivileges=yes
LockPersonality=yes
PrivateDevices=yes
PrivateTmp=yes
# Within, users of the system cannot be told from each other: method peer of [[hba]] takes "no" here.
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=setrlimit prlimit64
SystemCallErrorNumber=EPERM`;

const UPGRADE = `# Has the executable, as it is by then, take over (takeover_socket), with the configuration as it is by then.
ExecReload=/bin/kill -USR2 $MAINPID`;

interface Named {
	readonly configPath: string;
	readonly configNamed: boolean;
	readonly usersPath: string | undefined;
}

/**
 * @param executable its path
 * @param upgrades a reload has the executable take over from the running process
 * @param waits systemd itself sends SIGHUP, and waits for what the process says of the reload (systemd 253)
 */
export function systemdUnit(
	executable: string,
	{ configPath, configNamed, usersPath }: Named,
	upgrades: boolean,
	waits = false,
): string {
	const config = configNamed ? resolve(configPath) : CONFIG;
	const flags = usersPath === undefined ? [config] : [config, "--users", resolve(usersPath)];
	const start = [executable, "--config", ...flags].map(quoted).join(" ");
	return `# Install it with:
#
#   sudo install -d -m 0755 /etc/pgdog && sudo install -d -m 0700 /etc/pgdog/secrets
#   ${quoted(executable)} install --systemd | sudo tee /etc/systemd/system/pgdog.service
#   sudo systemctl daemon-reload && sudo systemctl enable --now pgdog
#
# Before the last of these, put pgdog.toml and users.toml into /etc/pgdog. The executable may not lie below /home, which
# the service does not see.
#
# With a pgdog.socket beside it ([Socket], ListenStream=6432, ListenStream=/run/postgresql/.s.PGSQL.6432), clients wait while
# the service starts anew.
#
# The configuration has to be readable for the service's user, who is nobody's: put secrets into /etc/pgdog/secrets, one a file.
# systemd hands each to the service alone: to /etc/pgdog/secrets/alice leads password_file = "${CREDENTIAL}_alice". It does so at the
# start: a changed secret takes a restart, everything else a reload.

[Unit]
Description=PgDog, a proxy for PostgreSQL
After=network-online.target
Wants=network-online.target

[Service]
Type=${waits ? "notify-reload" : "notify"}
# Of its processes the main one is believed, and that says which one goes on in its place.
NotifyAccess=main
ExecStart=${start}
${upgrades ? UPGRADE : waits ? "ReloadSignal=SIGHUP" : "ExecReload=/bin/kill -HUP $MAINPID"}
Restart=on-failure
RestartSec=1
WatchdogSec=30
# Beyond shutdown_timeout (60 s), within which transactions may end.
TimeoutStopSec=90
LimitNOFILE=1048576
LoadCredential=${CREDENTIAL}:/etc/pgdog/secrets
UnsetEnvironment=BUN_OPTIONS BUN_BE_BUN

${HARDENED}
# No MemoryDenyWriteExecute: the program is compiled while it runs.

[Install]
WantedBy=multi-user.target
`;
}

/** A word of a command line, as systemd reads it (systemd.service(5), "Command lines"). */
function quoted(word: string): string {
	const escaped = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
	return /^[\w@%+=:,./$-]+$/.test(escaped) ? escaped : `"${escaped.replace(/["\\]/g, "\\$&")}"`;
}
