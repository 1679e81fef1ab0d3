// The syntax trees of src, from the compiler's own parser: for tools of ours that look at code, or put something into it.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import type { SourceFile } from "typescript/unstable/ast";
import { API } from "typescript/unstable/async";

export const SOURCE = join(import.meta.dir, "..", "src");

/** Trees of all files of a folder, by path below it. Parsed only: no types, no imports followed. */
export async function trees(source = SOURCE): Promise<Map<string, SourceFile>> {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-syntax-"));
	const project = join(folder, "tsconfig.json");
	const compilerOptions = { noLib: true, noResolve: true, types: [], noEmit: true, allowImportingTsExtensions: true };
	writeFileSync(project, JSON.stringify({ compilerOptions, include: [join(source, "**", "*.ts")] }));
	const api = new API({ cwd: folder });
	try {
		const snapshot = await api.updateSnapshot({ openProjects: [project] });
		const program = snapshot.getProjects()[0]!.program;
		const found = new Map<string, SourceFile>();
		for (const name of await program.getSourceFileNames())
			found.set(relative(source, name), (await program.getSourceFile(name))!);
		return found;
	} finally {
		await api.close();
		rmSync(folder, { recursive: true });
	}
}
