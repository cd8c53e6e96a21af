'use strict';
// Puts what the proxy sends each second in the place of what is there, and lets the keyboard choose a time on a chart.
const main = document.getElementById('now');
const link = document.getElementById('link');
const fixed = main.hasAttribute('data-fixed');

// Replaced under the cursor, a selection or the focus would be lost.
function swap(html) {
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && main.contains(selection.anchorNode)) return;
  const strips = () => [...main.querySelectorAll('.strip')];
  const focused = strips().indexOf(document.activeElement);
  main.innerHTML = html;
  if (focused >= 0) strips()[focused]?.focus({ preventScroll: true });
}

function connect() {
  const source = new EventSource('events');
  let heard = 0;
  source.onmessage = (event) => {
    heard = Date.now();
    link.textContent = 'live';
    link.className = '';
    swap(event.data);
  };
  const watch = setInterval(() => {
    const silent = Date.now() - heard > 5000;
    if (heard && silent) {
      link.textContent = `✖ no word from the proxy since ${new Date(heard).toLocaleTimeString()}`;
      link.className = 'bad';
    }
    // Refused, as when too many pages are open: the browser gives up, and this does not.
    if (source.readyState === EventSource.CLOSED) {
      clearInterval(watch);
      setTimeout(connect, 5000);
    }
  }, 1000);
}

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && fixed) location.assign('./');
  const strip = document.activeElement?.closest?.('.strip');
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!strip || !step) return;
  event.preventDefault();
  const moments = [...strip.querySelectorAll('a')];
  const chosen = moments.findIndex((moment) => moment.classList.contains('chosen'));
  const next = moments[chosen < 0 ? moments.length - 1 : chosen + step];
  if (next) location.assign(next.getAttribute('href') + '#' + [...main.querySelectorAll('.strip')].indexOf(strip));
});

if (fixed) {
  link.textContent = 'a moment of the past';
  main.querySelectorAll('.strip')[Number(location.hash.slice(1))]?.focus();
} else {
  connect();
}
