// Only these two files of undici are loaded for direct connections: its index would load fetch, caches and mocks as well, which
// more than doubles the start of the program. The index has the types, and is what a proxy needs.
declare module 'undici/lib/dispatcher/pool.js' {
  import type { Pool } from 'undici';
  const pool: typeof Pool;
  export default pool;
}

declare module 'undici/lib/core/connect.js' {
  import type { buildConnector } from 'undici';
  const build: typeof buildConnector;
  export default build;
}
