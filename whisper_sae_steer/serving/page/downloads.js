/** Transcripts as files, as Whisper's own writers write them. */

export const WRITERS = {
  txt: ({ segments }) => segments.map(({ text }) => `${text.trim()}\n`).join(""),
  srt: ({ segments }) =>
    segments.map((segment, i) => `${i + 1}\n${cue(segment, (time) => stamp(time, true, ","))}\n`).join(""),
  vtt: ({ segments }) =>
    `WEBVTT\n\n${segments.map((segment) => `${cue(segment, (time) => stamp(time, false, "."))}\n`).join("")}`,
  json: (result) => JSON.stringify(result),
};

const cue = ({ start, end, text }, time) => `${time(start)} --> ${time(end)}\n${text.trim().replaceAll("-->", "->")}\n`;

function stamp(seconds, hours, point) {
  const all = Math.round(1000 * seconds), two = (number) => String(number).padStart(2, "0");
  const whole = Math.floor(all / 1000), hour = Math.floor(whole / 3600);
  const start = hours || hour ? `${two(hour)}:` : "";
  return `${start}${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}${point}${String(all % 1000).padStart(3, "0")}`;
}

/** Fill an element with a button for each format; `told()` gives {name, result} when one is pressed. */
export function offer(element, what, told) {
  const buttons = Object.keys(WRITERS).map((format) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format;
    button.setAttribute("aria-label", `Download the ${what} as ${format}`);
    button.addEventListener("click", () => {
      const { name, result } = told();
      save(`${name}.${format}`, WRITERS[format](result));
    });
    return button;
  });
  element.replaceChildren("Download", ...buttons);
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
