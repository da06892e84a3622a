import { parentPort, workerData } from 'node:worker_threads';
import { toFailure } from './messages.ts';
import type { Answer, Command, Notice, ThreadData } from './messages.ts';
import { Writer } from './writer.ts';

// What runs in the writing thread: commands come as messages, each is done without pause, and answered.
const port = parentPort!;
const writer = new Writer(workerData as ThreadData, (changes) => {
  const notice: Notice = { changes };
  port.postMessage(notice);
});

port.on('message', (command: Command) => {
  let answer: Answer;
  try {
    answer = { value: writer.obey(command) };
  } catch (error) {
    answer = { failure: toFailure(error) };
  }
  port.postMessage(answer);
});
