// Kills the processes that were handed to it when this process ends, also by SIGKILL, so that no proxy is left behind by a test
// run or an `npm start` that was killed. Called by proxy.ts and the scripts. (PostgreSQL has a watcher of its own, in
// postgres-home.ts, which knows about shared memory and folders.)

// Reads "+ pid" and "- pid"; its standard input ends when we do. Signals of the terminal are not for it.
const SCRIPT = `
trap '' INT TERM HUP
pids=" "
while read -r sign pid; do
	case $sign in
		+) pids="$pids$pid " ;;
		-) pids=$(echo "$pids" | sed "s/ $pid / /") ;;
	esac
done
[ "$pids" = " " ] || kill -CONT $pids 2>/dev/null
[ "$pids" = " " ] || kill -KILL $pids 2>/dev/null
`;

// One for the process: it must live exactly as long.
let reaper: Bun.Subprocess<"pipe", "ignore", "ignore"> | undefined;

/** Ties the life of `child` to ours, and lets go of it when it has ended. */
export function adopt(child: Bun.Subprocess): void {
	reaper ??= spawn();
	const { stdin } = reaper;
	stdin.write(`+ ${child.pid}\n`);
	stdin.flush();
	child.exited.then(() => {
		stdin.write(`- ${child.pid}\n`);
		stdin.flush();
	});
}

function spawn(): Bun.Subprocess<"pipe", "ignore", "ignore"> {
	const process = Bun.spawn(["/bin/sh", "-c", SCRIPT], {
		stdin: "pipe",
		stdout: "ignore",
		stderr: "ignore",
		detached: true,
	});
	process.unref();
	return process;
}
