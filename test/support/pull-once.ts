// Pulls the layers of a reference in its arguments and prints `ok`, in a separate process.
import { RegistryClient } from './registry-client.ts';

await using client = await RegistryClient.open(process.argv[2]!, { retry: 0 });
const outcome = await client.pull().then(
  () => 'ok',
  (error: unknown) => String(error),
);
process.stdout.write(outcome);
