/** Recordings as samples: what a file holds, and what the microphone hears. */

export const RATE = 16000;

/** Mono samples at 16 kHz, or null if the browser knows no such format. */
export async function decode(blob) {
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const buffer = await context.decodeAudioData(await blob.arrayBuffer());
    const samples = new Float32Array(buffer.length);
    for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
      const data = buffer.getChannelData(channel);
      for (let i = 0; i < data.length; i++) samples[i] += data[i] / buffer.numberOfChannels;
    }
    return samples;
  } catch {
    return null;
  }
}

/** 16-bit mono WAV; what a browser records has no length, so it can't be sought in. */
export function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new Blob([view.buffer], { type: "audio/wav" });
}

/** The microphone's stream; an error says what to do where there is none. */
export async function microphone() {
  if (!navigator.mediaDevices)
    throw new Error("Browsers give the microphone to pages on https or localhost only. Choose a file instead.");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
  } catch (error) {
    throw new Error(`No microphone: ${error.message || error.name}. Allow it for this page, or choose a file.`);
  }
}

/** Records the microphone until `stop()`, which resolves to the recording: a WAV, or null if nothing came. */
export async function startRecording() {
  const stream = await microphone();
  const recorder = new MediaRecorder(stream), chunks = [];
  recorder.ondataavailable = (event) => chunks.push(event.data);
  recorder.start();
  return {
    stop: () =>
      new Promise((resolve) => {
        recorder.onstop = async () => {
          stream.getTracks().forEach((track) => track.stop());
          const samples = await decode(new Blob(chunks));
          resolve(samples?.length ? wav(samples) : null);
        };
        recorder.stop();
      }),
  };
}
