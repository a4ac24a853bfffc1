// The search of a site that is opened as files, where no worker may read the index: it comes as a script.
document.addEventListener('DOMContentLoaded', () => {
  const place = document.getElementById('mkdocs-search-results');
  if (!place || window.location.protocol !== 'file:') return;
  const asked = new URLSearchParams(window.location.search).get('q') || '';
  const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
  const script = document.createElement('script');
  script.src = 'search/offline.js';
  script.onload = () => {
    const rank = ({ title, text }) => {
      const [head, body] = [title.toLowerCase(), text.toLowerCase()];
      const points = words.map((word) => (head.includes(word) ? 3 : body.includes(word) ? 1 : 0));
      return words.length === 0 || points.includes(0) ? 0 : points.reduce((sum, one) => sum + one);
    };
    const ranked = window.offlineSearch.map((doc) => ({ doc, points: rank(doc) }));
    const found = ranked.filter(({ points }) => points > 0);
    found.sort((one, other) => other.points - one.points);
    place.replaceChildren(...found.slice(0, 50).map(({ doc }) => {
      const link = Object.assign(document.createElement('a'), { href: doc.location, textContent: doc.title });
      const heading = document.createElement('h3');
      heading.append(link);
      const about = Object.assign(document.createElement('p'), { textContent: doc.text.slice(0, 200) });
      const one = document.createElement('article');
      one.append(heading, about);
      return one;
    }));
    if (found.length === 0) place.textContent = 'Nothing has all of these words.';
  };
  document.head.append(script);
});
