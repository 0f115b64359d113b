// Sends files and waits for their studies; turns the heat on and off. Without this the list and the studies still work.

const box = document.getElementById("send");
const field = document.getElementById("file");
const lines = document.getElementById("sending");
const waiting = [];
let sending = false;
let taken = 0;

function line(name) {
  const made = lines.appendChild(document.createElement("li"));
  const state = made.appendChild(document.createElement("span"));
  made.prepend(name, " ");
  return (text, bad = false) => {
    state.textContent = text;
    state.classList.toggle("problem", bad);
    return state;
  };
}

async function take(files) {
  for (const file of files) {
    taken += 1;
    waiting.push([file, line(file.name)]);
  }
  if (sending) return;
  sending = true;
  for (let next; (next = waiting.shift());) await send(...next);
  sending = false;
}

async function send(file, say) {
  say(box.dataset.sending);
  try {
    const answer = await fetch("/uploads?name=" + encodeURIComponent(file.name), { method: "POST", body: file });
    if (answer.status === 401) { sending = false; location.href = "/login"; return; }
    const told = await answer.json();
    if (answer.status !== 201) { say(box.dataset.failed.replace("%", () => told.reason), true); return; }
    say(box.dataset.reading);
    follow(told.intake, say).catch(() => say(box.dataset.lost, true));
  } catch {
    say(box.dataset.lost, true);
  }
}

async function follow(intake, say) {
  for (let i = 0; i < 120; i++) {
    const { study } = await (await fetch("/uploads/" + intake)).json();
    if (study) { done("/studies/" + study, say); return; }
    await new Promise((wake) => setTimeout(wake, i < 20 ? 150 : 500));
  }
  say(box.dataset.slow);
}

function done(study, say) {
  if (taken === 1) { location.href = study; return; }
  const link = document.createElement("a");
  link.href = study;
  link.textContent = box.dataset.answer;
  say("").append(link);
}

if (box) {
  field.addEventListener("change", () => {
    take([...field.files]);
    field.value = "";
  });
  for (const kind of ["dragover", "dragenter"]) {
    box.addEventListener(kind, (event) => { event.preventDefault(); box.classList.add("over"); });
  }
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    box.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  window.addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });
}

const film = document.getElementById("film");
const choices = document.querySelectorAll("[data-film]");
for (const choice of choices) {
  choice.addEventListener("click", () => {
    film.src = choice.dataset.film;
    for (const other of choices) other.setAttribute("aria-pressed", String(other === choice));
  });
}

document.getElementById("print")?.addEventListener("click", () => window.print());
