/** A configuration as text, and what it could not say. */
export interface RuntimeConfig {
  readonly text: string;
  /** One line each, for people. */
  readonly notices: readonly string[];
}
