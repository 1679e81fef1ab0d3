// `import file from "….wasm" with { type: "file" }`: Bun gives the file's path, inside the compiled executable too.

declare module "*.wasm" {
	const path: string;
	// biome-ignore lint/style/noDefaultExport: that is how Bun gives it.
	export default path;
}
