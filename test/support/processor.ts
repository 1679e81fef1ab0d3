// Processor time instead of the clock: what says how much work something is, on a machine that is busy with other things too.

/** How long `work` keeps the processor, ms. It must not wait for anything: then this thread does what others ask of it, too. */
export function spent(work: () => void): number {
	const before = process.threadCpuUsage();
	work();
	const { user, system } = process.threadCpuUsage(before);
	return (user + system) / 1000;
}
