// For the whole page, in its head: Escape stops; hints that were put away stay away.
const HINTS_SEEN = 'steering-hints'; // in the browser's own storage

steeringPage.start = () => {
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !event.defaultPrevented) document.querySelector('#stop')?.click();
  });
  const hints = document.querySelector('#hints');
  if (!hints) return;
  if (localStorage.getItem(HINTS_SEEN) === 'seen') hints.style.display = 'none';
  hints.addEventListener('click', (event) => {
    if (!event.target.closest('.hints-close')) return;
    localStorage.setItem(HINTS_SEEN, 'seen');
    hints.style.display = 'none';
  });
};
