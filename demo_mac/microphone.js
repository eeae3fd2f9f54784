// The microphone of the live page. gradio's own sends ten files a second in no certain order, and has the browser take out
// of the sound what is no speech. This one sends all that was recorded since the last answer, one message at a time.
const button = element.querySelector("button"), level = element.querySelector("meter");
const RECORD = button.textContent, STOP = "Stop";
const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; }
});`;
// idle, starting, hearing, and ending: the last answers are still to come.
let state = "idle";
let context = null, microphone = null, parts = [], samples = 0, waiting = false, first = true;

// In base64, samples of 16 bits.
const encode = (blocks) => {
  const values = new Int16Array(samples);
  let at = 0, text = "";
  for (const block of blocks) for (const value of block) values[at++] = Math.max(-1, Math.min(1, value)) * 32767;
  for (const byte of new Uint8Array(values.buffer)) text += String.fromCharCode(byte);
  return btoa(text);
};

// Called after each block and after each answer: sends a second and more, and after the last block whatever there is.
const send = () => {
  if (waiting || !context) return;
  if (samples && (state === "ending" || samples >= context.sampleRate)) {
    waiting = true;
    const chunk = { samples: encode(parts), rate: context.sampleRate, first };
    [parts, samples, first] = [[], 0, false];
    trigger("chunk", chunk);
  } else if (state === "ending") {
    [context, state] = [null, "idle"];
    if (!first) trigger("end");
  }
};
// An answer that tells of a problem, as words.py writes it, is the last one: what was not sent is dropped.
window.microphoneAnswered = (text) => {
  waiting = false;
  if (text?.includes('class="problem"')) {
    [parts, samples] = [[], 0];
    microphoneStop();
  }
  send();
};

// Opens an audio context that hears the microphone; one that cannot is closed.
const connect = async (rate) => {
  const made = new AudioContext(rate && { sampleRate: rate });
  try {
    const source = made.createMediaStreamSource(microphone);
    await made.audioWorklet.addModule(URL.createObjectURL(new Blob([TAP], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(made, "tap", { channelCount: 1, channelCountMode: "explicit" });
    tap.port.onmessage = ({ data }) => {
      if (state !== "hearing") return;
      parts.push(data);
      samples += data.length;
      level.value = Math.max(level.value * 0.95, ...data);
      send();
    };
    source.connect(tap);
    return made;
  } catch (error) {
    made.close();
    throw error;
  }
};

const release = () => {
  microphone?.getTracks().forEach((track) => track.stop());
  microphone = null;
};

const stop = () => {
  state = "ending";
  level.value = 0;
  button.textContent = RECORD;
  release();
  context.close();
  send();
};
window.microphoneStop = () => { if (state === "hearing") stop(); };

button.addEventListener("click", async () => {
  if (state === "hearing") return stop();
  if (state !== "idle") return; // also the second click of two, since `state` changes before anything is awaited
  state = "starting";
  try {
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    microphone = await navigator.mediaDevices.getUserMedia({ audio });
    [parts, samples, waiting, first] = [[], 0, false, true];
    context = await connect(16000).catch(() => connect()); // Firefox knows the microphone's own rate alone
    state = "hearing";
    button.textContent = STOP;
  } catch (error) {
    release();
    state = "idle";
    trigger("refused");
  }
});
