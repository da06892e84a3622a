// Pulls the layers of the reference in argv and says `ok`: for tests that need the surroundings of a process of its own.
import { RegistryClient } from './registry-client.ts';

await using client = await RegistryClient.open(process.argv[2]!, { retry: 0 });
const outcome = await client.pull().then(
  () => 'ok',
  (error: unknown) => String(error),
);
process.stdout.write(outcome);
