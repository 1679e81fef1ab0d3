// What `pgdog install --systemd` prints, as systemd itself judges it where it is installed.

import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemdUnit } from "../../src/config/systemd-unit.ts";

const UNNAMED = { configPath: "pgdog.toml", configNamed: false, usersPath: undefined };

test("the unit starts this executable with the files that were named, or with those of /etc/pgdog", () => {
	expect(systemdUnit("/usr/local/bin/pgdog", UNNAMED, false)).toContain(
		"\nExecStart=/usr/local/bin/pgdog --config /etc/pgdog/pgdog.toml\n",
	);
	const unit = systemdUnit("/opt/pgdog", UNNAMED, false);
	expect(unit).toContain("\nLoadCredential=secrets:/etc/pgdog/secrets\n");
	expect(unit).toContain('/etc/pgdog/secrets/alice leads password_file = "secrets_alice"');
	expect(unit).toContain(
		"put pgdog.toml and users.toml into /etc/pgdog. The executable may not lie below /home, which\n# the service does not see.\n",
	);
	const named = { configPath: "/srv/a b/x.toml", configNamed: true, usersPath: "/srv/50%$/users.toml" };
	expect(systemdUnit("/opt/pgdog", named, false)).toContain(
		'\nExecStart=/opt/pgdog --config "/srv/a b/x.toml" --users /srv/50%%$$/users.toml\n',
	);
});

test("a reload reads the configuration, or has the executable take over, as one chooses", () => {
	for (const [upgrades, signal] of [
		[false, "HUP"],
		[true, "USR2"],
	] as const) {
		const unit = systemdUnit("/opt/pgdog", UNNAMED, upgrades);
		expect(unit.match(/^ExecReload=.*$/gm)).toEqual([`ExecReload=/bin/kill -${signal} $MAINPID`]);
		expect(unit).toContain("\nNotifyAccess=main\n");
	}
});

test("where it may, systemd sends the signal itself and waits until the reload is over", () => {
	const typeOf = (unit: string) => unit.match(/^(Type|ExecReload|ReloadSignal|NotifyAccess)=.*$/gm);
	expect(typeOf(systemdUnit("/opt/pgdog", UNNAMED, false, true))).toEqual([
		"Type=notify-reload",
		"NotifyAccess=main",
		"ReloadSignal=SIGHUP",
	]);
	expect(typeOf(systemdUnit("/opt/pgdog", UNNAMED, false))![0]).toBe("Type=notify");
});

test.skipIf(Bun.which("systemd-analyze") === null)("systemd takes the unit, and rates it below 3.0", () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-unit-"));
	try {
		const path = join(folder, "pgdog.service");
		writeFileSync(path, systemdUnit("/bin/true", UNNAMED, true));
		const analyze = (...args: string[]) => {
			const { exitCode, stdout, stderr } = Bun.spawnSync(["systemd-analyze", ...args, path]);
			return { exitCode, said: `${stdout}${stderr}` };
		};
		const security = analyze("security", "--offline=true", "--threshold=30", "--no-pager");
		const rating = Number(/exposure level for \S+: ([\d.]+)/.exec(security.said)?.[1]);
		expect(rating).toBeLessThan(3);
		expect(security.exitCode).toBe(0);
		// Units that others have brought may be wrong too: only what is said of this one counts.
		expect(
			analyze("verify", "--man=no")
				.said.split("\n")
				.filter((line) => line.includes("pgdog")),
		).toEqual([]);
	} finally {
		rmSync(folder, { recursive: true });
	}
});
