/** The host of `host`, `host:port` or `[::1]:port`, without brackets, lower case. */
export function hostnameOf(host: string): string {
  const bracketed = /^\[([^\]]*)\]/.exec(host);
  return (bracketed?.[1] ?? host.replace(/:\d*$/, '')).toLowerCase();
}

/** Whether a `host[:port]` names this machine: only there plain http is tried without `--plain-http`. */
export function isLoopback(host: string): boolean {
  const name = hostnameOf(host);
  if (name === 'localhost' || name.endsWith('.localhost')) return true;
  return /^(?:::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name) || name === '::1';
}
