// What `npm start`, `npm test` and their siblings do first, on a machine that has nothing but npm (or Bun): install the pinned
// packages when they are missing or the lock file has changed, build dist/pgdog when it is older than its sources, then run
// the script named. Plain JavaScript of Node's own modules, since neither Bun nor TypeScript is there yet.
//
//   node scripts/setup.mjs [--build] [script.ts [arguments]]

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const modules = join(root, "node_modules");
const bun = join(modules, ".bin", process.platform === "win32" ? "bun.exe" : "bun");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

function fail(message) {
	console.error(`setup: ${message}`);
	process.exit(1);
}

function run(command, args, cwd = root) {
	const { status, error } = spawnSync(command, args, { cwd, stdio: ["ignore", "inherit", "inherit"] });
	if (error || status !== 0) fail(`${command} ${args.join(" ")} failed${error ? `: ${error.message}` : ""}`);
}

function installIfNeeded() {
	// A stamp of our own: times say nothing after a clone, and each package manager keeps its notes elsewhere.
	const stamp = join(modules, ".setup-stamp");
	const hash = createHash("sha256");
	for (const file of ["package.json", "package-lock.json"]) hash.update(readFileSync(join(root, file)));
	const wanted = hash.digest("hex");
	if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
	install();
	finishInstallScripts();
	mkdirSync(modules, { recursive: true });
	writeFileSync(stamp, wanted);
}

function install() {
	console.error("setup: installing packages");
	// NODE_ENV=production must not leave Bun out. `npm ci` would insist on lock entries for platforms that the registry at
	// hand may not carry; --no-save keeps the lock file as it is.
	const args = ["install", "--no-save", "--include=dev", "--include=optional", "--no-audit", "--no-fund"];
	const starter = process.env.npm_execpath ?? "";
	if (/npm-cli\.[cm]?js$/.test(starter)) run(process.execPath, [starter, ...args]);
	else if (spawnSync("npm", ["--version"], { stdio: "ignore" }).status === 0) run("npm", args);
	else if (/bun[^/]*$/.test(starter)) run(starter, ["install", "--no-save"]);
	else fail("neither npm nor Bun is there to install the packages");
}

/** npm may refuse to run the packages' install scripts, or be told to (ignore-scripts). Two of them are needed. */
function finishInstallScripts() {
	const version = () => spawnSync(bun, ["--version"], { encoding: "utf8" }).stdout?.trim();
	if (version() !== manifest.devDependencies.bun) run(process.execPath, ["install.js"], join(modules, "bun"));
	if (version() !== manifest.devDependencies.bun)
		fail(`${bun} does not run: is this machine one that Bun has a build for?`);
	for (const name of Object.keys(manifest.optionalDependencies)) {
		const folder = join(modules, name);
		const list = join(folder, "native", "pg-symlinks.json");
		if (!existsSync(list)) continue;
		const links = JSON.parse(readFileSync(list, "utf8"));
		if (links.every(({ target }) => existsSync(join(folder, target)))) continue;
		run(process.execPath, ["scripts/hydrate-symlinks.js"], folder);
	}
}

function newest(path) {
	if (!existsSync(path)) return 0;
	const stat = statSync(path);
	if (!stat.isDirectory()) return stat.mtimeMs;
	const names = readdirSync(path).filter((name) => name !== "target" && name !== "node_modules");
	return Math.max(0, ...names.map((name) => newest(join(path, name))));
}

function buildIfNeeded() {
	const output = join(root, "dist", "pgdog");
	const bridge = ["bridge", "stand-ins", ".cargo", "Cargo.toml", "Cargo.lock"].map((name) => `plugins/${name}`);
	const scripts = ["scripts/build.ts", "scripts/build-bridge.ts"];
	const inputs = ["src", ...bridge, ...scripts, "package.json", "package-lock.json"];
	const built = existsSync(output) ? statSync(output).mtimeMs : 0;
	// Written by a build that had no cargo, or one that failed: where there is one now, the next build may be whole.
	const lacks = existsSync(join(root, "dist", "without-plugins.txt")) && spawnSync("cargo", ["--version"]).status === 0;
	if (lacks || inputs.some((input) => newest(join(root, input)) > built)) run(bun, ["scripts/build.ts"]);
}

const args = process.argv.slice(2);
installIfNeeded();
if (args[0] === "--build") {
	args.shift();
	buildIfNeeded();
}
if (args.length > 0) {
	const child = spawn(bun, args, { cwd: root, stdio: "inherit" });
	// Ctrl-C reaches the child by itself; a signal to npm or to us alone has to be handed on. The child knows that it may
	// get the same signal twice.
	for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
	// npm killed outright tells nobody: then the child must not go on alone.
	const parent = process.ppid;
	setInterval(() => process.ppid !== parent && child.kill("SIGTERM"), 1_000).unref();
	child.on("error", (error) => fail(error.message));
	child.on("exit", (code, signal) => process.exit(code ?? (signal ? 1 : 0)));
}
