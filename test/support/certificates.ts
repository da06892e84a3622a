import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto';
import { isIP } from 'node:net';

/** A certificate and its private key, in PEM. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** A certificate authority for one test: only a client with `cert` trusts its certificates. */
export interface Authority extends Certificate {
  /** Issues a certificate for these DNS names and IP addresses, for servers and for clients. */
  issue(...names: readonly string[]): Certificate;
  /** Issues a certificate that expired yesterday. */
  issueExpired(...names: readonly string[]): Certificate;
}

const DAY = 86_400_000;

function tlv(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  if (content.length < 0x80) return Buffer.concat([Buffer.from([tag, content.length]), content]);
  const size =
    content.length < 0x100 ? [0x81, content.length] : [0x82, content.length >> 8, content.length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

const sequence = (...contents: readonly Uint8Array[]) => tlv(0x30, ...contents);
const oid = (hex: string) => tlv(0x06, Buffer.from(hex, 'hex'));
const octets = (...contents: readonly Uint8Array[]) => tlv(0x04, ...contents);
const bits = (content: Uint8Array) => tlv(0x03, Buffer.from([0]), content);
const truth = tlv(0x01, Buffer.from([0xff]));

const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'));
const commonName = (name: string) =>
  sequence(tlv(0x31, sequence(oid('550403'), tlv(0x0c, Buffer.from(name)))));
const generalizedTime = (time: number) =>
  tlv(0x18, Buffer.from(new Date(time).toISOString().replaceAll(/[-:T]|\.\d+/g, '')));

const basicConstraints = (authority: boolean) =>
  sequence(oid('551d13'), truth, octets(sequence(...(authority ? [truth] : []))));
const keyUsage = (byte: number) => sequence(oid('551d0f'), truth, octets(tlv(0x03, Buffer.from([0, byte]))));
const serverAndClient = sequence(
  oid('551d25'),
  octets(sequence(oid('2b06010505070301'), oid('2b06010505070302'))),
);

function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number));
  if (address !== '::1') throw new Error(`only ::1 of IPv6, not ${address}`);
  return Buffer.concat([Buffer.alloc(15), Buffer.from([1])]);
}

function alternativeNames(names: readonly string[]): Buffer {
  const entries = names.map((name) =>
    isIP(name) ? tlv(0x87, addressBytes(name)) : tlv(0x82, Buffer.from(name)),
  );
  return sequence(oid('551d11'), octets(sequence(...entries)));
}

function pem(label: string, der: Uint8Array): string {
  const lines = Buffer.from(der)
    .toString('base64')
    .match(/.{1,64}/g)!;
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

interface Subject {
  readonly name: string;
  readonly issuer: string;
  readonly publicKey: KeyObject;
  readonly notAfter: number;
  readonly extensions: readonly Buffer[];
}

function certificate(subject: Subject, issuerKey: KeyObject): string {
  const body = sequence(
    tlv(0xa0, tlv(0x02, Buffer.from([2]))),
    tlv(0x02, Buffer.concat([Buffer.from([1]), randomBytes(15)])),
    ecdsaWithSha256,
    commonName(subject.issuer),
    sequence(generalizedTime(Date.now() - 3650 * DAY), generalizedTime(subject.notAfter)),
    commonName(subject.name),
    subject.publicKey.export({ type: 'spki', format: 'der' }),
    tlv(0xa3, sequence(...subject.extensions)),
  );
  return pem('CERTIFICATE', sequence(body, ecdsaWithSha256, bits(sign('sha256', body, issuerKey))));
}

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const exportKey = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }).toString();

/** Makes a new authority with its own key, without programs or files. */
export function createAuthority(name = 'dlrootfs test authority'): Authority {
  const own = newKey();
  const issue = (names: readonly string[], notAfter: number): Certificate => {
    const { publicKey, privateKey } = newKey();
    const extensions = [basicConstraints(false), keyUsage(0x80), serverAndClient, alternativeNames(names)];
    const subject = { name: names[0] ?? 'client', issuer: name, publicKey, notAfter, extensions };
    return { cert: certificate(subject, own.privateKey), key: exportKey(privateKey) };
  };
  const subject = {
    name,
    issuer: name,
    publicKey: own.publicKey,
    notAfter: Date.now() + 3650 * DAY,
    extensions: [basicConstraints(true), keyUsage(0x06)],
  };
  return {
    cert: certificate(subject, own.privateKey),
    key: exportKey(own.privateKey),
    issue: (...names) => issue(names, Date.now() + 3650 * DAY),
    issueExpired: (...names) => issue(names, Date.now() - DAY),
  };
}
