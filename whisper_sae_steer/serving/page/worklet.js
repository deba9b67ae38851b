/** Runs beside the page: the microphone's samples as 16-bit integers, in messages of 0.1 s. */

const CHUNK = 1600; // samples at 16 kHz

class Capture extends AudioWorkletProcessor {
  samples = new Int16Array(CHUNK);
  filled = 0;
  ended = false;

  constructor() {
    super();
    this.port.onmessage = () => {
      this.send();
      this.port.postMessage(null);
      this.ended = true;
    };
  }

  process([[channel]]) {
    for (const value of this.ended ? [] : channel ?? []) {
      this.samples[this.filled++] = 32767 * Math.max(-1, Math.min(1, value));
      if (this.filled === CHUNK) this.send();
    }
    return !this.ended;
  }

  send() {
    if (this.filled) this.port.postMessage(this.samples.slice(0, this.filled));
    this.filled = 0;
  }
}

registerProcessor("capture", Capture);
