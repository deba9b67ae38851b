/** Numbers as people read them. */

export const DOUBTFUL = 0.2, HIGH = 0.5; // hallucination risk

export const percent = (share) => `${Math.round(100 * share)}%`;
export const level = (risk) => (risk === null ? "" : risk >= HIGH ? "high" : risk >= DOUBTFUL ? "middle" : "low");
export const size = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

export function clock(seconds, tenths = false) {
  const whole = Math.floor(seconds), fraction = tenths ? `.${Math.floor(10 * (seconds - whole))}` : "";
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}${fraction}`;
}
