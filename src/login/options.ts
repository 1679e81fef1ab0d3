// The startup parameter `options`, which has settings as a command line would have them. Called by startup.ts.

/**
 * `-c name=value` and `--name=value` of the startup parameter `options` (PostgreSQL docs, "libpq: options"): separated by
 * spaces, a backslash takes the next character as it is.
 */
export function parseOptions(options: string): [string, string][] {
	const words: string[] = [];
	let word = "";
	let open = false;
	for (let i = 0; i < options.length; i++) {
		const c = options[i]!;
		if (c === "\\" && i + 1 < options.length) {
			word += options[++i];
			open = true;
		} else if (/\s/.test(c)) {
			if (open) words.push(word);
			word = "";
			open = false;
		} else {
			word += c;
			open = true;
		}
	}
	if (open) words.push(word);
	const found: [string, string][] = [];
	for (let i = 0; i < words.length; i++) {
		let setting = words[i]!;
		if (setting === "-c") setting = words[++i] ?? "";
		else if (setting.startsWith("-c")) setting = setting.slice(2);
		else if (setting.startsWith("--")) setting = setting.slice(2);
		else continue;
		const equals = setting.indexOf("=");
		if (equals > 0)
			found.push([setting.slice(0, equals).toLowerCase().replaceAll("-", "_"), setting.slice(equals + 1)]);
	}
	return found;
}
